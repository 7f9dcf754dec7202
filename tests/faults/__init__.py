"""What happens when the ground gives way: kills, full disks, damage."""
