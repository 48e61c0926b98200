"""LDAT: make a caption set multilingual in four stages; translate, filter, adapt, rewrite (Bi-IRRA, section 3.2).

Nothing is imported here: a stage loads what it needs, and translating over an endpoint needs no torch.
"""
