"""tipr encoders"""
