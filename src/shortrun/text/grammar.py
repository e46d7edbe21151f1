"""The synthetic headlines' grammar, as data: rules, and the words that fill them. All of it is invented.

A rule is a list of (weight, pattern) alternatives, or a plain list of words, whose n-th word has weight 1 / (n + 3), as
Zipf's law has it. `{name}` in a pattern stands for a rule.
"""

from __future__ import annotations

from itertools import product as pairs

Rule = list[tuple[float, str]] | list[str]


def _spread(words: list[str], stride: int) -> list[str]:
    """The same words in an order that does not run by first letters; `stride` has no common factor with their number."""
    return [words[index * stride % len(words)] for index in range(len(words))]


_ONSETS = (
    "Quill Tandem Bright Ember Harbor Loom Cinder Velvet Orbit Maple Copper Drift Signal Pebble Raven Lantern Summit Cobalt "
    "Meadow Falcon Timber Willow Anchor Beacon Canyon Delta Echo Fable Garnet Hazel Indigo Juniper Kelp Lumen Mosaic Nimbus "
    "Onyx Prism Quartz Ripple Sable Thistle Umbra Vertex Walnut Zephyr Acorn Bramble Clover Dune"
).split()
_CODAS = "base ly kit flow db cast stack pad hub works mark grid wise lab shift deck forge view sync mesh ist".split()
_PRODUCTS = _spread([onset + coda for onset, coda in pairs(_ONSETS, _CODAS)], 389)
_FIRMS = _spread([a + b for a, b in pairs(
    "Nor Vel Ast Cor Del Hex Kin Lum Mar Oct Pol Quan Riv Sol Tel Ul Vant Wex Yar Zen".split(),
    "dex ora tis ium ancy ello ara ifi onix ura ento ulus ova eria".split(),
)], 89)
_FIRST = (
    "Mira Jonas Priya Tomas Aiko Lena Omar Nadia Felix Ines Ravi Clara Hugo Zofia Emil Sana Paulo Greta Kofi Yuki Anton Leila "
    "Marek Noor Stella Bruno Ayesha Viktor Elsa Diego"
).split()
_LAST = (
    "Lindqvist Okafor Tanaka Marchetti Haddad Novak Pereira Schäfer Iyer Dubois Kowalski Bergström Castillo Moreau Petrov "
    "Andersen Rahman Fischer Quintero Nakamura Osei Virtanen Lambert Horvath Delgado Sørensen Mbeki Keller Rossi Ward"
).split()
_CITIES = "Berlin Nairobi Lisbon Seattle Zürich Osaka Toronto Bogotá Melbourne Warsaw Dublin Chennai Tallinn Lagos Oslo".split()
_TOPICS = [
    "databases", "compilers", "machine learning", "static typing", "functional programming", "open source", "web design",
    "remote work", "cryptography", "technical debt", "code review", "distributed systems", "garbage collection", "typography",
    "operating systems", "type inference", "version control", "microservices", "unit testing", "home automation", "robotics",
    "network protocols", "memory safety", "game engines", "spreadsheets", "consensus algorithms", "color theory", "parsing",
    "quantum computing", "package managers", "embedded systems", "search engines", "data visualization", "email delivery",
    "container images", "browser extensions", "audio synthesis", "hash tables", "formal verification", "queueing theory",
]
_THINGS = [
    "text editor", "note-taking app", "static site generator", "password manager", "feed reader", "key-value store",
    "task runner", "terminal emulator", "message queue", "spreadsheet", "web crawler", "log viewer", "package manager",
    "time tracker", "chess engine", "ray tracer", "regex debugger", "JSON viewer", "query planner", "color picker",
    "music player", "budget planner", "image compressor", "map renderer", "test runner", "calendar", "code formatter",
    "search engine", "synthesizer", "file manager", "diff tool", "backup tool", "habit tracker", "recipe box", "load balancer",
    "bug tracker", "video editor", "graph database", "font editor", "window manager", "HTTP client", "PDF reader",
    "mail server", "keyboard firmware", "weather station", "flashcard app", "form builder", "link shortener", "profiler",
    "type checker", "dashboard", "job board", "podcast player", "whiteboard", "CSV cleaner", "password generator",
]
_QUALITIES = [
    "open-source", "fast", "minimal", "self-hosted", "tiny", "simple", "free", "modern", "lightweight", "offline-first",
    "privacy-friendly", "collaborative", "portable", "distributed", "hackable", "keyboard-driven", "real-time", "beautiful",
    "declarative", "fault-tolerant", "type-safe", "zero-config", "serverless", "embeddable", "programmable", "visual",
]
_FIELDS = [
    "sleep", "coffee", "short walks", "bilingual children", "city noise", "red wine", "deep-sea corals", "honeybees",
    "video games", "gut bacteria", "air pollution", "night shifts", "open offices", "standing desks", "daylight", "crows",
    "urban trees", "meditation", "cold showers", "handwriting", "background music", "solar storms", "ancient glaciers",
    "dark chocolate", "naps", "house cats", "octopuses", "slime molds", "migratory birds", "long commutes", "soil fungi",
]
_EFFECTS = [
    "memory", "attention", "blood pressure", "mood", "life expectancy", "reaction times", "creativity", "the immune system",
    "productivity", "language learning", "bone density", "appetite", "anxiety", "heart health", "problem solving", "eyesight",
    "crop yields", "local temperatures", "school grades", "decision making", "navigation", "stress", "social bonds",
]
_LANGUAGES = "Rust Python Go C++ JavaScript Haskell Zig C TypeScript Elixir Clojure OCaml Ruby Java Swift Lua Erlang Julia".split()
_SYSTEMS = "Linux FreeBSD Postgres SQLite Git Emacs Vim Kubernetes Docker Firefox nginx Redis LLVM Wayland ZFS Bash".split()

RULES: dict[str, Rule] = {
    "title": [
        (10, "Show HN: {product} – {a_thing}"), (5, "Show HN: {A_thing} written in {language}"),
        (4, "Show HN: I built {a_thing} {purpose}"), (3, "Show HN: {product}, {a_thing} {purpose}"),
        (5, "Ask HN: How do you {chore}?"), (4, "Ask HN: What is the best {thing} {purpose}?"),
        (3, "Ask HN: Is {topic} still worth learning in {year}?"), (3, "Ask HN: Who else is tired of {topic}?"),
        (2, "Ask HN: What are you working on? ({month} {year})"), (6, "{system} {version} released"),
        (5, "{product} {version}: {quality}, {quality} and {language}-friendly"), (4, "Announcing {language} {version}"),
        (5, "{firm} acquires {product} for ${amount}"), (5, "{firm} raises ${amount} to {mission}"),
        (3, "{firm} to lay off {number} employees in {city}"), (3, "{firm} opens a research lab in {city}"),
        (6, "Study: {field} {linked} {effect}{dated}"), (4, "How {field} {change} {effect}{dated}"),
        (5, "{gerund} {thing_plural} in {language}{dated}"), (5, "A {guide} to {topic}{dated}"),
        (5, "Why I {switched} from {language} to {language}"), (4, "Why {topic} {matters}"),
        (4, "The {adjective} history of {topic}{dated}"), (4, "{topic_title} considered {verdict}"),
        (4, "{person} on {topic}{dated}"), (3, "An interview with {person}, author of {product}"),
        (3, "{person} has died"), (4, "What {number} years of {topic} taught me"), (3, "Lessons from {gerund_lower} {a_thing}"),
        (4, "{system} internals: {aspect}{dated}"), (3, "{city} bans {nuisance}"), (3, "{city} {council} {nuisance}"),
        (3, "Launch HN: {product} (YC {season}{short_year}) – {A_thing} {purpose}"),
    ],
    "a_thing": [(3, "a {thing}"), (5, "a {quality} {thing}"), (2, "a {quality}, {quality} {thing}")],
    "A_thing": [(3, "A {thing}"), (5, "A {quality} {thing}"), (2, "A {quality}, {quality} {thing}")],
    "purpose": [
        (5, "for {audience}"), (3, "for {topic}"), (3, "that runs in {place}"), (2, "in {number} lines of {language}"),
        (2, "with {language} bindings"),
    ],
    "audience": [
        "developers", "teams", "writers", "students", "musicians", "small businesses", "researchers", "families", "teachers",
        "designers", "scientists", "gardeners", "musicologists", "translators", "night owls", "lawyers", "nurses", "pilots",
    ],
    "place": ["the browser", "the terminal", "a spreadsheet", "your pocket", "{system_mode}", "{number} KB of memory"],
    "chore": [
        (4, "learn {topic}"), (3, "keep up with {topic}"), (3, "explain {topic} to {audience}"), (3, "choose {a_thing}"),
        (2, "back up your {thing}"), (2, "hire {audience}"), (2, "test {thing_plural}"),
    ],
    "mission": [(3, "bring {topic} to {audience}"), (3, "build {a_thing} for {audience}"), (2, "reinvent {topic}")],
    "guide": [
        "gentle introduction", "practical guide", "visual introduction", "beginner's guide", "field guide", "short course",
        "skeptic's guide", "tour from scratch", "hands-on introduction",
    ],
    "switched": ["switched", "moved", "migrated our backend", "went back", "ported my compiler"],
    "matters": [
        "matters", "is hard", "is not dead", "is eating the world", "will not save you", "needs better tools",
        "is harder than it looks", "deserves a second look",
    ],
    "adjective": ["secret", "short", "strange", "forgotten", "surprising", "tangled", "unlikely", "very long"],
    "verdict": ["harmful", "helpful", "essential", "overrated", "fun"],
    "linked": ["linked to better", "linked to worse", "may improve", "has no effect on", "can predict", "changes"],
    "change": ["shape", "improve", "harm", "quietly change", "explain", "protect"],
    "gerund": ["Building", "Debugging", "Testing", "Optimizing", "Writing", "Designing", "Profiling", "Fuzzing"],
    "gerund_lower": ["building", "selling", "rewriting", "maintaining", "deleting", "open-sourcing", "launching"],
    "aspect": [
        "the scheduler", "the page cache", "how locks work", "the storage engine", "a tour of the source", "reading the parser",
        "the memory allocator", "write-ahead logging", "the event loop",
    ],
    "council": ["votes to tax", "wants to ban", "experiments with", "rethinks", "subsidizes"],
    "nuisance": [
        "cars from its center", "electric scooters", "leaf blowers", "facial recognition", "short-term rentals", "cash",
        "gas stoves", "night flights", "plastic bags", "parking minimums", "free parking", "billboards",
    ],
    "dated": [(12, ""), (5, " ({year})"), (2, " ({year}) [pdf]"), (2, " [pdf]"), (1, " [video]")],
    "version": [(6, "{digit}.{digit}"), (3, "{digit}.{digit}.{digit}"), (2, "{digit}.0"), (1, "1{digit}.0"), (1, "2.0 beta {digit}")],
    "amount": [(4, "{digit}M"), (5, "{digit}{digit}M"), (3, "{digit}.{digit}M"), (2, "{digit}.{digit}B"), (1, "{digit}00M")],
    "digit": list("123456789"),
    "number": ["10", "100", "20", "5", "500", "1000", "30", "50", "200", "64", "15", "40", "300", "2000"],
    "year": [str(year) for year in (*range(2015, 2026), *range(2014, 1984, -1))],
    "short_year": [f"{year:02}" for year in (*range(19, 26), *range(18, 9, -1))],
    "season": [(1, "W"), (1, "S")],
    "month": (
        "January February March April May June July August September October November December".split()
    ),
    "person": [(1, "{first} {last}")],
    "thing_plural": [(1, "{thing}s")],
    "system_mode": [(1, "{system} mode")],
    "topic_title": [(1, f"{topic[0].upper()}{topic[1:]}") for topic in _TOPICS],
    "product": _PRODUCTS, "firm": _FIRMS, "first": _FIRST, "last": _LAST, "city": _CITIES, "topic": _TOPICS,
    "thing": _THINGS, "quality": _QUALITIES, "field": _FIELDS, "effect": _EFFECTS, "language": _LANGUAGES,
    "system": _SYSTEMS,
}  # fmt: skip
"""Start symbol: "title"."""
