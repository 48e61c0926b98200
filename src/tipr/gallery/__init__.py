"""tipr gallery"""
