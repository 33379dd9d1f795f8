"""Keeps a company's phones working when its PBX dies."""
