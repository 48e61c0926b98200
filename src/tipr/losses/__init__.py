"""tipr losses"""
