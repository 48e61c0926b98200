"""tipr data/datasets"""
