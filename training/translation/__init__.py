"""Translators from visible to infrared images: untrained ones and a learnt network, its training and evaluation."""
