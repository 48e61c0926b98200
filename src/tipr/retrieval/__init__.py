"""tipr retrieval"""
