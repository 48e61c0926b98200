"""tipr data/synthetic"""
