"""The rule checker: it reads runs/ and recomputes, apart from the code that trains."""
