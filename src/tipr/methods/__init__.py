"""tipr methods"""
