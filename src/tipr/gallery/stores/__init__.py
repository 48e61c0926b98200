"""tipr gallery/stores"""
