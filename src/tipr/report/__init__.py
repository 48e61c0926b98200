"""tipr report"""
