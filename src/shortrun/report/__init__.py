"""Reports: what runs, studies and sweeps have shown, as one document in several forms (the extra `report`).

`content` makes the document from run folders, as blocks. `html`, `pdf` and `myst` write it.
"""
