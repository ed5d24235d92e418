"""What the report shows, one module per part of the page; ``build_report`` reads the data and puts the page together.

``formatting`` writes numbers for readers, ``table`` makes tables for the template, ``source`` reads a file and links its
tables to it; the others hold the tables of their part.
They import what the environment of the figures has, and no more.
"""
