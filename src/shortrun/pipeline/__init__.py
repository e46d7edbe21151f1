"""The corpus pipeline: files of text or HTML become clean documents without duplicates, split, with a record of every step."""
