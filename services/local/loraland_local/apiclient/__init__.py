"""How the controllers and the kubelet of the laptop talk to a Kubernetes API."""
