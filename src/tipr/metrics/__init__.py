"""tipr metrics"""
