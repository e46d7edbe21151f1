"""The words and sentence patterns of the synthetic headlines (`shortrun.text.synthetic` is what speaks them).

All of it was written for this project. Products, companies and people are put together from stems, so that no headline
says anything about a real one; a likeness is chance.

Three kinds of plain data:

- word lists, most frequent word first: the rank alone decides a word's probability. `COMMON` lists serve every headline;
  `DOMAINS` lists belong to one subject, so that what is named early in a headline decides what may follow.
- `PHRASES`, which stand inside sentences, and the headlines of each family of subjects, each pattern with its weight. A slot
  `{tool}` takes a word of that list or one of that phrase; `{tool:s}` inflects it (see `inflect`). Slots are drawn independently, given the subject.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping


def _list(words: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in words.split(","))


def _names(first: str, last: str, joint: str = "", most: int = 320, turn: int = 0) -> tuple[str, ...]:
    """Names of two parts, those of two frequent parts first; `turn` makes other first parts the frequent ones."""
    firsts, lasts = _list(first), _list(last)
    firsts = firsts[turn:] + firsts[:turn]
    pairs = [(i, j) for i in range(len(firsts)) for j in range(len(lasts))]
    pairs.sort(key=lambda pair: ((pair[0] + 1) * (pair[1] + 1), pair))
    return tuple(firsts[i] + joint + lasts[j] for i, j in pairs[:most])


def _plural(word: str) -> str:
    """Of a noun; the third person of a verb is formed the same way."""
    if re.search("(s|x|z|ch|sh)$", word):
        return word + "es"
    return word[:-1] + "ies" if re.search("[^aeiou]y$", word) else word + "s"


def _gerund(word: str) -> str:
    if re.search("[^e]e$", word):
        return word[:-1] + "ing"
    doubles = re.fullmatch("(de|for)?[^aeiou]*[aeiou][^aeiouwxy]", word)  # scan, debug, format
    return word + (word[-1] if doubles else "") + "ing"


def _with_article(word: str) -> str:
    vowel = re.match("[aeioAEIO8]|u[^ns]|un[^i]|[FHLMNRSX][A-Z]", word)  # an SQL parser, but a user, a unified log
    return ("an " if vowel else "a ") + word


_INFLECTIONS: Mapping[str, Callable[[str], str]] = {"": str, "s": _plural, "ing": _gerund, "a": _with_article}


def inflect(word: str, how: str) -> str:
    """The word inflected as a slot asks: "s", "ing", "a" (its article before it), or ""; with "^" first, capitalised."""
    inflected = _INFLECTIONS[how.removeprefix("^")](word)
    return inflected[0].upper() + inflected[1:] if how.startswith("^") else inflected


_STEMS = (
    "Quill, Tarn, Brindle, Larch, Fennel, Kestrel, Moss, Heron, Sable, Thistle, Vesper, Wren, Yarrow, Alder, Cinder,"
    "Fable, Grove, Juniper, Loom, Nettle, Opal, Plume, Rill, Sorrel, Tansy, Urchin, Vireo, Willow, Bramble, Cobble,"
    "Dapple, Eider, Flint, Gannet, Hazel, Ibex, Jackdaw, Kelp, Lichen, Marlin, Nimbus, Osprey, Petrel, Quince, Rowan,"
    "Saffron, Teasel, Umber, Velvet, Walnut, Zephyr, Acorn, Birch, Copper, Damson, Elder, Fjord, Gorse, Harbor, Indigo,"
    "Lantern, Meadow, Nutmeg, Otter, Pollen, Quarry, Russet, Sundew, Tundra, Vellum, Wicker, Yonder"
)
_SURNAMES = (
    "Halden, Okafor, Lindqvist, Marchetti, Tanaka, Brandt, Ferreira, Novak, Castellan, Whitlow, Iyer, Müller, Dubois,"
    "Achterberg, Solano, Petrov, Yilmaz, Kowalski, O'Dell, Nakamura, Ferrante, Bergström, Adeyemi, Choudhury, Vance,"
    "Rasmussen, Quispe, Hargreave, Moreau, Takács, Lindgren, Osei, Peña, Varga, Thorne, Ibarra, Kessler, Mwangi"
)
_GIVEN = (
    "Anna, James, Maria, Wei, Tomás, Priya, Erik, Sofia, Kenji, Laura, Samuel, Ingrid, Daniel, Amara, Zoë, Peter, Leila,"
    "Hugo, Mei, Oscar, Nadia, Felix, Ruth, Andrés, Clara, Ivan, Grace, Jonas, Yuki, Helen"
)
_YEARS = tuple(str(year) for year in (*range(2019, 2004, -1), *range(2004, 1969, -1)))

COMMON: Mapping[str, tuple[str, ...]] = {
    "year": _YEARS,
    "recent": _list("2024, 2023, 2022, 2025, 2021, 2020, 2019"),
    "future": _list("2027, 2028, 2030, 2029, 2035, 2040, 2050"),
    "month": _list("January, February, March, April, May, June, July, August, September, October, November, December"),
    "digit": _list("0, 1, 2, 3, 4, 5, 6, 7, 8, 9"),
    "major": _list("1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 16, 18, 20"),
    "few": _list("three, two, five, ten, four, six, seven, eight, nine, twelve, twenty, thirty, a hundred"),
    "span": _list("years, months, weeks, days, weekends, hours, evenings"),
    "percent": tuple(str(n) for n in (10, 20, 50, 30, 40, 90, 5, 15, 25, 80, 60, 70, 12, 7, 8, 35, 45, 75, 95, 99)),
    "money": tuple(f"${n}M" for n in (10, 5, 20, 50, 100, 12, 30, 15, 8, 40, 25, 3, 7, 18, 75, 200, 150, 60, 35, 22))
    + _list("$1B, $2B, $1.5B, $3B, $4.2B"),
    "round": _list("Series A, Series B, seed round, Series C, Series D, bridge round"),
    "batch": tuple(f"YC {season}{year}" for year in range(24, 14, -1) for season in "WS"),
    "person": _names(_GIVEN, _SURNAMES, " ", most=600),
    "employer": _names(
        _STEMS, "Labs, Software, Analytics, Games, Studios, Energy, Foods, Airlines", " ", most=200, turn=5
    ),
    "surname": _list(_SURNAMES),
    "city": _list(
        "London, Berlin, New York, Tokyo, Zürich, Paris, San Francisco, Amsterdam, Singapore, Lisbon, Seattle, Toronto,"
        "Helsinki, Vienna, Barcelona, Copenhagen, São Paulo, Seoul, Oslo, Melbourne, Nairobi, Kraków, Bogotá, Austin,"
        "Montréal, Reykjavík, Tallinn, Taipei, Mumbai, Lagos, Kyoto, Prague, Málaga, Dublin, Warsaw, Edinburgh, Venice,"
        "Istanbul, Athens, Lima, Hanoi, Cairo, Denver, Detroit, Glasgow, Naples, Rotterdam, Gdańsk, Bilbao, Cork"
    ),
    "adjective": _list(
        "simple, fast, open-source, tiny, modern, self-hosted, lightweight, minimal, free, better, privacy-friendly,"
        "collaborative, hackable, portable, offline-first, real-time, friendly, no-nonsense, extensible, elegant, modular,"
        "zero-dependency, single-file, cheap, visual, reliable, keyboard-driven, AI-powered, old-school, beautiful,"
        "community-run, low-cost, boring, experimental, unified, peer-to-peer, programmable, scriptable, plain-text, tidy"
    ),
    "manner": _list(
        "in the browser, from the command line, without the cloud, in one line of code, in plain English, in seconds,"
        "with zero configuration, on a Raspberry Pi, at scale, the hard way, from your phone, without writing code,"
        "in a single binary, on a budget, over SSH, with nothing but a spreadsheet, in under a minute, like it's 1999,"
        "from first principles, without losing sleep, on your own hardware, in 100 lines, with a Makefile, by e-mail"
    ),
    "audience": _list(
        "developers, small teams, startups, beginners, busy people, researchers, students, engineers, remote teams,"
        "hobbyists, freelancers, hospitals, schools, journalists, nonprofits, accountants, musicians, teachers, farmers,"
        "lawyers, parents, librarians, architects, open-source maintainers, physicists, dentists, biologists, restaurants"
    ),
    "role": _list(
        "programmer, developer, engineer, founder, manager, data scientist, designer, student, CTO, sysadmin, researcher,"
        "technical writer, product manager, tester, contractor, tech lead, investor, teacher"
    ),
    "resource": _list(
        "books, resources, blogs, courses, papers, podcasts, talks, newsletters, tutorials, exercises, open problems"
    ),
    "verdict": _list(
        "overrated, harder than they look, broken, the future, not what you think, underrated, eating the world, dead,"
        "finally usable, a trap, back, worth the trouble, simpler than you think, a lie, due for a rethink, still magic"
    ),
    "quality": _list(
        "limits, cost, complexity, reliability, unreasonable effectiveness, theory, hidden cost, state, economics, beauty,"
        "fragility, ethics, geometry, correctness, surprising history, anatomy, future, practice, psychology, convergence"
    ),
    "event": _list("a data leak, a bad quarter, a board fight, ten years, a lost lawsuit, a failed merger, an outage"),
    "device": _list(
        "a Raspberry Pi, a Game Boy, my old laptop, a $5 server, a calculator, a smart fridge, a Commodore 64, my phone,"
        "a wristwatch, a 1983 minicomputer, an e-reader, a broken router, a solar panel, a tractor, an electric kettle"
    ),
    "virtue": _list(
        "boredom, plain text, side projects, slow reading, handwriting, walking, remote work, idle time, small websites,"
        "deep work, silence, boring technology, whiteboards, napping, public libraries, paper maps, checklists, the bicycle,"
        "note-taking, unfinished work, long e-mails, saying no, meetings, night trains, the four-day week, amateurism,"
        "repairing things, RSS, pair programming, rereading, doing nothing, mental arithmetic, deadlines, allotments"
    ),
    "habit": _list(
        "stay focused, learn new things, avoid burnout, take notes, find a mentor, keep up with papers, manage your time,"
        "price a side project, sleep better, say no to meetings, find remote work, read more books, deal with RSI, get fit,"
        "back up your photos, choose what to work on, negotiate a raise, make friends after 30, quit social media,"
        "work with small kids at home, organise your bookmarks, remember what you read, switch careers at 40"
    ),
    "relic": _list(
        "subway map, pneumatic mail, public clocks, street lamps, telephone exchange, underground rivers, lost airport,"
        "first arcade, abandoned tramline, ghost station, punch-card library, night market, radio tower, ship canal,"
        "last typewriter shop, water clock, weather station, secret bunker, bicycle tunnel, film archive, city wall"
    ),
    "story": _list("strange, forgotten, secret, short, brief, surprising, sad, hidden, long, untold, curious, violent"),
    "ban": _list(
        "facial recognition, gas boilers, electric scooters, short-term rentals, cars from its centre, leaf blowers,"
        "targeted advertising, cashless shops, single-use plastic, phones in schools, billboards, delivery robots,"
        "noncompete agreements, dark patterns, cruise ships, right turns on red, door-to-door sales, fast food ads"
    ),
    "outcome": _list(
        "better sleep, longer life, lower stress, sharper memory, heart disease, higher pay, weight loss,"
        "depression, fewer sick days, lower blood pressure, back pain, stronger bones, myopia, loneliness"
    ),
    "exposure": _list(
        "Coffee, Exercise, Sleep, Reading fiction, Night shifts, Screen time, Green tea, Walking, Air pollution, Cycling,"
        "Remote work, Chess, Learning a language, City noise, Fasting, Meditation, Dark chocolate, Living near trees,"
        "Cold showers, Playing an instrument, Commuting, Skipping breakfast, Owning a dog, Gardening, Bright light"
    ),
}

_TOPICS: Mapping[str, Mapping[str, str]] = {
    "data": {
        "endings": "DB, base, SQL, store, Query, Lake",
        "tool": "database, key-value store, query engine, SQL editor, time-series database, search engine, data pipeline,"
        "message queue, spreadsheet, query planner, ETL tool, backup tool, graph database, vector index, event log,"
        "data catalog, cache, schema migrator, replication layer, column store, dashboard",
        "thing": "log, JSON document, CSV file, sensor reading, table, query, metric, event, Parquet file, index, transaction,"
        "row, spreadsheet, graph, schema, materialized view, ledger, geospatial record, invoice, changelog",
        "verb": "query, index, replicate, search, store, shard, import, join, compress, migrate, sync, deduplicate,"
        "stream, partition, version, archive",
        "pain": "deadlock, slow query, corrupt index, schema drift, cache miss, lost write, replication lag, bad join,"
        "duplicate row, stale read, failed migration, runaway transaction",
        "field": "SQL, query planning, data modelling, B-trees, consensus, event sourcing, columnar storage, sharding,"
        "write-ahead logging, full-text search, CRDTs, isolation levels, LSM trees, data lineage, stream processing",
        "trait": "embedded, distributed, append-only, in-memory, serverless, columnar, immutable, transactional",
        "language": "Rust, Go, Java, C++, Python, Scala, Clojure, Zig, SQL, Erlang, Kotlin, C",
    },
    "code": {
        "endings": "lang, script, lint, Forge, check, IR",
        "tool": "compiler, programming language, debugger, code editor, type checker, linter, package manager, interpreter,"
        "build system, parser generator, code formatter, static analyzer, terminal, version control system, profiler,"
        "fuzzer, test runner, notebook, language server, documentation generator, macro system, decompiler",
        "thing": "regular expression, shell script, config file, pull request, unit test, type, commit, monorepo, closure,"
        "macro, stack trace, syntax tree, docstring, legacy codebase, merge conflict, generic, iterator, Dockerfile, dotfile",
        "verb": "parse, compile, debug, refactor, test, lint, review, format, profile, fuzz, typecheck, rewrite, document,"
        "generate, transpile, optimize, trace, inline",
        "pain": "memory leak, flaky test, race condition, merge conflict, null pointer, slow build, off-by-one error,"
        "circular import, segfault, mystery crash, dependency cycle, leaky abstraction",
        "field": "functional programming, type theory, garbage collection, parsing, lambda calculus, monads, unit testing,"
        "concurrency, Lisp macros, code review, formal verification, WebAssembly, dependent types, metaprogramming,"
        "software architecture, error handling, async, register allocation, Unicode",
        "trait": "statically typed, type-safe, functional, self-hosting, incremental, concurrent, dynamic, lazy, formally verified",
        "language": "Rust, Python, Haskell, Go, OCaml, C, Lisp, Zig, TypeScript, Scheme, Java, Prolog, Forth, Racket, Elixir",
    },
    "web": {
        "endings": "kit, Page, UI, press, wire, CSS",
        "tool": "static site generator, web framework, browser extension, RSS reader, headless CMS, component library,"
        "web server, form builder, comment system, CSS framework, URL shortener, landing page builder, web scraper,"
        "feed aggregator, browser, bookmark manager, analytics tool, link checker, web font editor, API gateway, wiki",
        "thing": "website, web page, blog post, API, form, RSS feed, cookie, stylesheet, single-page app, landing page,"
        "bookmark, comment thread, HTML table, web font, newsletter, favicon, web component, sitemap, REST endpoint",
        "verb": "build, publish, scrape, host, render, design, monitor, deploy, archive, prerender, style, bookmark, share,"
        "crawl, prototype, translate, annotate",
        "pain": "broken link, cookie banner, layout shift, slow page, CORS error, dark pattern, expired certificate,"
        "redirect loop, bloated bundle, popup, blank screen, dead domain",
        "field": "CSS, web accessibility, server-side rendering, HTTP caching, web typography, progressive enhancement, HTML,"
        "responsive design, web performance, hypermedia, WebSockets, JavaScript, the semantic web, SEO, DNS",
        "trait": "static, responsive, server-rendered, accessible, headless, JavaScript-free, declarative, reactive",
        "language": "JavaScript, TypeScript, PHP, Ruby, Elixir, Go, Elm, Python, Clojure, Perl, Dart, Rust",
    },
    "learn": {
        "endings": "ML, net, LM, grad, former, Tune",
        "tool": "language model, neural network, training framework, chatbot, inference engine, image classifier, recommender,"
        "speech recognizer, prompt editor, labeling tool, tokenizer, experiment tracker, coding assistant, OCR engine,"
        "translation model, feature store, model registry, image generator, AutoML tool, reasoning benchmark",
        "thing": "image, large language model, prompt, embedding, dataset, document, transformer, PDF, video, podcast,"
        "support ticket, handwritten note, medical scan, satellite image, protein structure, chess game, GPU kernel, receipt",
        "verb": "train, classify, fine-tune, generate, summarize, label, segment, caption, transcribe, evaluate, quantize,"
        "cluster, distill, predict, augment, tokenize",
        "pain": "hallucination, exploding gradient, mislabeled example, overfit model, data leak, biased dataset, loss spike,"
        "prompt injection, dead neuron, GPU shortage, benchmark leak",
        "field": "deep learning, machine learning, reinforcement learning, attention, backpropagation, linear algebra,"
        "computer vision, Bayesian inference, gradient descent, diffusion models, NLP, scaling laws, probability,"
        "tokenization, causal inference, interpretability, convolutions, Gaussian processes",
        "trait": "multimodal, differentiable, pretrained, sparse, quantized, interpretable, generative, data-efficient",
        "language": "Python, Julia, C++, R, Rust, CUDA, Swift, JavaScript, Lua, C, Mojo",
    },
    "guard": {
        "endings": "Lock, vault, Shield, Key, Guard, seal",
        "tool": "password manager, firewall, VPN, vulnerability scanner, secrets manager, encrypted messenger, ad blocker,"
        "honeypot, two-factor authenticator, file encryption tool, certificate authority, bug bounty platform, sandbox,"
        "intrusion detector, mail server, audit log, anonymity network, malware scanner, access control library",
        "thing": "password, secret, e-mail, SSH key, backup, file, container, certificate, API key, phone call, firmware image,"
        "access token, binary, network packet, smart lock, login, npm package, browser session, private message",
        "verb": "encrypt, audit, scan, share, sign, verify, rotate, sandbox, revoke, fingerprint, crack, block, monitor, hash,"
        "reverse-engineer, exfiltrate",
        "pain": "data breach, phishing mail, zero-day, leaked password, ransomware attack, side channel, supply-chain attack,"
        "buffer overflow, backdoor, botnet, weak cipher, social engineer, rogue certificate",
        "field": "cryptography, threat modelling, zero-knowledge proofs, public-key encryption, reverse engineering, TLS,"
        "elliptic curves, differential privacy, password hashing, fuzzing, OAuth, memory safety, homomorphic encryption,"
        "capability security, penetration testing, steganography",
        "trait": "end-to-end encrypted, zero-knowledge, tamper-proof, post-quantum, memory-safe, anonymous, decentralized",
        "language": "Rust, C, Go, Python, OCaml, Java, Ada, C#, Haskell, Zig, Assembly",
    },
    "metal": {
        "endings": "OS, core, Board, link, boot, VM",
        "tool": "operating system, emulator, file system, hypervisor, container runtime, microcontroller, bootloader, scheduler,"
        "keyboard, 3D printer, memory allocator, device driver, logic analyzer, network stack, smart thermostat,"
        "software-defined radio, shell, e-ink display, game console, oscilloscope, synthesizer, weather station",
        "thing": "kernel module, Linux server, container, FPGA, GPU, sensor, floppy disk, USB device, circuit board, CPU cache,"
        "syscall, virtual machine, solar panel, interrupt handler, hard drive, thread, vintage computer, robot arm, drone",
        "verb": "boot, emulate, overclock, virtualize, simulate, solder, repair, schedule, cool, benchmark, flash, mount,"
        "undervolt, recycle, trace, suspend, restore",
        "pain": "kernel panic, page fault, dead pixel, thermal shutdown, bit flip, power outage, dying SSD, noisy fan,"
        "clock skew, context switch, driver bug, cold solder joint",
        "field": "operating systems, virtual memory, RISC-V, embedded programming, cache coherence, tracing, FPGA design, system calls,"
        "branch prediction, digital logic, SIMD, memory barriers, interrupt handling, PCB design, assembly, power management",
        "trait": "bare-metal, fault-tolerant, low-power, real-time, battery-powered, fanless, lock-free, Unix-like",
        "language": "C, Rust, Assembly, Zig, C++, Forth, Go, Ada, Verilog, Lua, MicroPython, Pascal",
    },
    "work": {
        "endings": "Desk, flow, HQ, Pay, hire, Board",
        "tool": "to-do list, CRM, calendar app, invoicing tool, project tracker, job board, time tracker, note-taking app,"
        "expense tracker, help desk, payroll service, meeting scheduler, customer survey tool, team chat, e-mail client,"
        "applicant tracker, knowledge base, marketplace, billing system, feedback widget, equity calculator",
        "thing": "meeting, invoice, interview, e-mail, customer, contract, side project, expense, remote team, resume, subscription,"
        "roadmap, task, job offer, stock option, customer complaint, newsletter, deadline, cold call, pricing page",
        "verb": "schedule, track, automate, manage, hire, sell, negotiate, organize, invoice, plan, price, market, delegate,"
        "cancel, grow, outsource, onboard",
        "pain": "unpaid invoice, endless meeting, burned-out engineer, churned customer, toxic manager, missed deadline, chargeback, bad hire,"
        "scope change, layoff, cofounder conflict, tax bill, patent troll",
        "field": "pricing, bootstrapping, remote work, technical interviews, B2B sales, product management, cold e-mail, hiring,"
        "fundraising, stock options, time management, customer support, game theory, copywriting, negotiation, accounting",
        "trait": "async, subscription-free, bootstrapped, usage-based, white-label, automated, shared, GDPR-compliant",
        "language": "Ruby, PHP, Java, Python, Elixir, JavaScript, C#, Excel, COBOL, Go, TypeScript",
    },
    "play": {
        "endings": "cast, Play, Pixel, Studio, tone, frame",
        "tool": "game engine, music player, photo editor, drawing app, chess engine, podcast app, video editor, ray tracer,"
        "drum machine, map editor, puzzle game, text adventure, animation tool, e-book reader, physics engine, font editor,"
        "level editor, crossword generator, pixel art editor, guitar tuner, roguelike, city builder",
        "thing": "photo, game, song, 3D model, map, chord, animation, crossword, podcast, shader, fractal, comic, sprite, sound,"
        "board game, video, font, dungeon, maze, origami pattern, melody, recipe, star chart",
        "verb": "draw, render, play, compose, animate, sketch, remix, edit, generate, design, stream, sample, illustrate, convert,"
        "explore, decorate, visualize",
        "pain": "frame drop, copyright claim, loot box, audio glitch, screen tear, cheater, lag spike, broken save, rounding error,"
        "unskippable cutscene, bad port",
        "field": "ray tracing, procedural generation, game design, music theory, color theory, shaders, pixel art, typography,"
        "sound synthesis, level design, Fourier transforms, quaternions, typesetting, cartography, juggling, origami",
        "trait": "procedural, multiplayer, hand-drawn, turn-based, open-world, 8-bit, generative, browser-based, retro",
        "language": "C++, Lua, JavaScript, Rust, C#, Godot, Haskell, BASIC, Swift, Processing, Assembly, Lisp",
    },
}

_SECTORS: Mapping[str, Mapping[str, str]] = {
    "cars": {
        "endings": "Motors, Automotive, Mobility, EV",
        "offer": "electric pickup, solid-state battery, self-driving taxi, solar van, flying car, electric bus, cargo bike,"
        "hydrogen truck, battery-swap station, self-parking scooter, driverless tram",
        "scandal": "emissions data, faulty brakes, self-driving claims, battery fires, driver tracking, odometer fraud",
        "site": "battery plant, gigafactory, test track, charging hub, repair school",
    },
    "space": {
        "endings": "Aerospace, Orbital, Rockets, Space",
        "offer": "reusable rocket, lunar lander, space telescope, satellite constellation, orbital tug, Mars rover, space tug,"
        "ion thruster, weather satellite, asteroid probe, inflatable habitat",
        "scandal": "launch noise, space debris, missed deadlines, export rules, an unlicensed launch, radio interference",
        "site": "launch site, mission control centre, rocket factory, clean room, ground station",
    },
    "health": {
        "endings": "Therapeutics, Biosciences, Health, Genomics",
        "offer": "malaria vaccine, blood test, gene therapy, insulin pump, cancer drug, hearing implant, bionic eye, flu shot,"
        "hospital robot, universal antivenom, sleep tracker, antibiotic",
        "scandal": "drug prices, hidden side effects, leaked patient records, faked trials, unsafe implants, opioid marketing",
        "site": "research campus, vaccine plant, sequencing lab, clinic, drug discovery centre",
    },
    "money": {
        "endings": "Bank, Capital, Payments, Insurance",
        "offer": "stablecoin, credit card, trading app, payments API, digital wallet, index fund, crypto exchange, cash machine,"
        "carbon market, flood insurance policy, microloan scheme",
        "scandal": "hidden fees, money laundering, insider trading, a rate-fixing scheme, fake accounts, cold-calling pensioners",
        "site": "trading floor, data centre, fraud lab, branch without staff, museum of money",
    },
    "tech": {
        "endings": "Systems, Networks, Labs, Cloud, Robotics, Semiconductor",
        "offer": "AI chip, home robot, foldable phone, quantum computer, smart speaker, AR headset, warehouse robot, cloud region,"
        "open-source laptop, e-ink tablet, mesh router, voice assistant, search engine",
        "scandal": "privacy violations, app store fees, an antitrust case, labor practices, ad fraud, location tracking,"
        "scraped photos, patent abuse",
        "site": "data centre, chip plant, research lab, regional headquarters, robot warehouse, AI institute",
    },
}

_SCIENCES: Mapping[str, Mapping[str, str]] = {
    "astronomy": {
        "scholar": "Astronomers, Astrophysicists, Planetary scientists, Stargazers",
        "found": "discover, spot, photograph, measure, lose track of, map",
        "object": "a black hole, an exoplanet, a fast radio burst, a new moon of Saturn, a rogue planet, a galaxy without stars,"
        "an interstellar comet, water on an asteroid, a dying star, the oldest galaxy yet, a ring around a dwarf planet,"
        "a diamond planet, a second Milky Way, a pair of colliding stars",
        "setting": "in the early universe, near the sun, in archived data, beyond Neptune, with a backyard telescope",
    },
    "physics": {
        "scholar": "Physicists, Materials scientists, Chemists, Engineers",
        "found": "create, observe, simulate, measure, cool, rule out, entangle",
        "object": "a time crystal, a room-temperature superconductor, antimatter, a new state of matter, sound waves, magnetic"
        " monopoles, a quantum battery, the half-life of xenon, ice that sinks, a knot of light, gravitational waves,"
        "a self-healing glass, supersolid helium, a plastic that conducts",
        "setting": "in the lab, at record low temperatures, with lasers, in a diamond, for the first time, in a soap film",
    },
    "biology": {
        "scholar": "Biologists, Ecologists, Neuroscientists, Geneticists, Marine biologists",
        "found": "sequence, record, film, identify, track, revive",
        "object": "octopus dreams, a deep-sea jellyfish, crows using tools, a 400-year-old shark, bees that count, fungal networks,"
        "a virus that eats viruses, tardigrades, whale dialects, an immortal flatworm, sleeping jellyfish, a new bat species,"
        "neurons that tell time, ants farming aphids",
        "setting": "in the wild, off the coast of Chile, in the rainforest, under the Antarctic ice, in a city park",
    },
    "history": {
        "scholar": "Archaeologists, Historians, Linguists, Divers, Amateur detectorists",
        "found": "unearth, decipher, date, restore, reassemble, identify",
        "object": "a Roman shipwreck, a Viking sword, a lost manuscript, a Bronze Age city, a Mayan calendar, an unknown script,"
        "a burnt scroll, a medieval board game, the oldest bread recipe, a Celtic coin hoard, cave paintings, a Greek computer,"
        "a forgotten star map, a wax tablet",
        "setting": "under a car park, in a monastery, with machine learning, after a century, off Sicily, in a private attic",
    },
}

DOMAINS: dict[str, dict[str, tuple[str, ...]]] = {
    domain: {name: _list(words) for name, words in lists.items()}
    for family in (_TOPICS, _SECTORS, _SCIENCES)
    for domain, lists in family.items()
}
for _number, _topic in enumerate(_TOPICS):  # what a name ends in, and which stems it likes, tells its topic
    DOMAINS[_topic]["product"] = _names(_STEMS, _TOPICS[_topic]["endings"], turn=9 * _number)
for _number, _sector in enumerate(_SECTORS):
    DOMAINS[_sector]["company"] = _names(_SURNAMES, _SECTORS[_sector]["endings"], " ", most=60, turn=7 * _number)

PHRASES: Mapping[str, Mapping[str, float]] = {
    "a_tool": {"{tool:a}": 3, "{adjective:a} {tool}": 6, "{trait:a} {tool}": 3, "{adjective:a}, {trait} {tool}": 2},
    "A_tool": {"{tool:^a}": 2, "{adjective:^a} {tool}": 4, "{trait:^a} {tool}": 3},
    "task": {"{thing:s}": 5, "{verb:ing} {thing:s}": 4, "{audience}": 2, "{field}": 1},
    "version": {
        "{major}.{digit}": 5,
        "v{major}.{digit}": 2,
        "{major}.{digit}.{digit}": 2,
        "{major}.0 beta": 1,
        "0.{digit}": 1,
    },
    "aside": {
        "": 12,
        ", written in {language}": 4,
        ", built on {field}": 2,
        " ({trait}, in {language})": 2,
        ", made in {city}": 2,
        " (looking for {role:s})": 1,
    },
    "origin": {"": 3, " at {employer}": 3, " {manner}": 2, " with {adjective} {tool:s}": 2},
    "dated": {"": 5, " ({year})": 2},
    "paper": {" [pdf]": 4, " ({year}) [pdf]": 3, "": 1},
    "talk": {" [video]": 4, " ({year}) [video]": 1},
    "study": {"": 4, ", study finds": 3, ", study suggests": 2, " ({year})": 1},
}

_TOPIC_HEADLINES: Mapping[str, float] = {
    "Show HN: {product} – {a_tool} for {task}{aside}": 26,
    "Show HN: {product} – {verb} {thing:s} {manner}": 13,
    "Show HN: {product}, {a_tool} that {verb:s} {thing:s}{aside}": 7,
    "Show HN: I built {a_tool} in {language} to {verb} {thing:s}": 9,
    "Show HN: {A_tool} that runs on {device}": 4,
    "Launch HN: {product} ({batch}) – {verb:^ing} {thing:s} for {audience}": 6,
    "Ask HN: What do you use for {verb:ing} {thing:s} in {recent}?": 7,
    "Ask HN: How do you deal with {pain:s} when {verb:ing} {thing:s}?": 4,
    "Ask HN: Best {resource} on {field}?": 4,
    "Ask HN: Is {field} still worth learning in {recent}?": 3,
    "{product} {version} released with {thing:s} and {field}": 4,
    "{product} {version} released": 5,
    "{product} {version}: {trait}, with support for {thing:s}": 4,
    "{product}: {A_tool} for {task}{aside}": 11,
    "{product}: {A_tool} written in {language}": 9,
    "{product} raises {money} {round} to help {audience} {verb} {thing:s}": 4,
    "{product}, the {tool} for {audience}, is shutting down after {event}": 3,
    "{verb:^ing} {adjective} {thing:s} in {language}{dated}": 6,
    "{verb:^ing} {thing:s} in {language}{origin}{dated}": 8,
    "{verb:^ing} {thing:s} {manner}: lessons from {few} {span}{origin}{dated}": 5,
    "How to {verb} {thing:s} {manner}{dated}": 9,
    "How we cut {pain:s} by {percent}%{origin}": 5,
    "How {pain:a} took down our {tool} at {employer}": 4,
    "Why we moved our {tool} away from {language}{origin}": 6,
    "Why {tool:s} are {verdict} for {verb:ing} {thing:s}{dated}": 6,
    "{field:^} for {audience}, by {person}{dated}": 5,
    "{field:^} from scratch in {language}{origin}{dated}": 5,
    "{field:^} considered harmful for {task}{dated}": 3,
    "An introduction to {field} with {thing:s}{paper}": 6,
    "The {quality} of {field} and {thing:s}{paper}": 6,
    "Towards {trait} {tool:s} without {pain:s}{paper}": 5,
    "The {story} history of the {tool}{dated}": 5,
    "What every {role} should know about {field}{paper}": 4,
    "I spent {few} {span} {verb:ing} {thing:s}. Here's what I learned": 5,
    "{person} on {field} for {audience}{talk}": 4,
    "Stop {verb:ing} your {thing:s}": 3,
}
_SECTOR_HEADLINES: Mapping[str, float] = {
    "{company} unveils {offer:a}": 6,
    "{company} delays its {offer} until {future}": 4,
    "{company} fined {money} over {scandal}": 4,
    "{company} to open {site:a} in {city}": 4,
    "{company} acquires a maker of {offer:s} for {money}": 4,
    "{company} lays off {percent}% of its staff after {event}": 4,
    "{company} CEO {surname} steps down over {scandal}": 3,
    "{city} orders {few} {offer:s} from {company}": 3,
}
_SCIENCE_HEADLINES: Mapping[str, float] = {
    "{scholar} {found} {object}": 8,
    "{scholar} {found} {object} {setting}{dated}": 8,
}
_COMMON_HEADLINES: Mapping[str, float] = {
    "Ask HN: Who is hiring? ({month} {recent})": 4,
    "Ask HN: How do you {habit}?": 6,
    "Ask HN: {role:^s} over 40, how do you {habit}?": 2,
    "In praise of {virtue} and {virtue}{dated}": 5,
    "The case against {virtue}, by {person}{dated}": 3,
    "{exposure} linked to {outcome} in {audience}{study}": 8,
    "The {story} story of {city}'s {relic}{dated}": 7,
    "{city} bans {ban} after {event}": 2,
    "{city} bans {ban}, {city} may be next": 3,
    "An interview with {person}, {role} at {employer}{dated}": 3,
}

FAMILIES: tuple[tuple[float, tuple[str, ...], Mapping[str, float]], ...] = (
    (78, tuple(_TOPICS), _TOPIC_HEADLINES),
    (7, tuple(_SECTORS), _SECTOR_HEADLINES),
    (6, tuple(_SCIENCES), _SCIENCE_HEADLINES),
    (9, ("",), _COMMON_HEADLINES),
)
"""Share of all headlines (%), the subjects a headline of this family may have, its patterns with their weights."""
