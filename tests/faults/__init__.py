"""Fault tests: killed processes, full disks, damaged files."""
