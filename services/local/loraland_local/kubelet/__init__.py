"""The kubelet of the laptop: pods as local processes."""
