"""Labelled crops: records, data set readers, cache, augmentation, sampling."""
