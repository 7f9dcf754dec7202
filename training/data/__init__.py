"""Labelled crops: records, readers of data sets, cache, augmentation, sampling."""
