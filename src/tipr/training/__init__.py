"""tipr training"""
