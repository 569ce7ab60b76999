"""What stands between the data and the network, for mmseg."""
