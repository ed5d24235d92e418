"""Deciding whether a response is right: one module per kind of reference, one verdict for all.

``dispatch`` is the way in; ``math``, ``science``, ``constraints`` and ``code`` hold the rules; ``pool`` runs the rules in processes
that can be killed.
"""
