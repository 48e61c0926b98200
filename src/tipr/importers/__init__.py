"""tipr importers"""
