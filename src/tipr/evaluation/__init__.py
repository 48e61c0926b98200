"""tipr evaluation"""
