"""tipr data"""
