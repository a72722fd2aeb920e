# docker buildx bake -f images/docker-bake.hcl            all images for CPUs
# docker buildx bake -f images/docker-bake.hcl cuda       inference and trainer for NVIDIA GPUs
# docker buildx bake -f images/docker-bake.hcl release    everything, with SBOM and provenance

variable "REGISTRY" { default = "ghcr.io/loraland" }
variable "VERSION" { default = "dev" }
variable "REVISION" { default = "unknown" }
# From bases.env: `set -a; . images/bases.env`. A tag alone builds, but a release refuses it.
variable "PYTHON_IMAGE" { default = "docker.io/library/python:3.11-slim-bookworm" }

variable "CPU_INDEX" { default = "https://download.pytorch.org/whl/cpu" }
variable "CUDA_INDEX" { default = "https://download.pytorch.org/whl/cu130" }
variable "CUDA_COMPILER" { default = "gcc libc6-dev" }

group "default" { targets = ["operator", "inference", "trainer"] }
group "cuda" { targets = ["inference-cuda", "trainer-cuda"] }
group "release" { targets = ["operator", "inference", "trainer", "inference-cuda", "trainer-cuda"] }

target "common" {
  context    = "."
  dockerfile = "images/Dockerfile"
  args = {
    PYTHON_IMAGE = PYTHON_IMAGE
    VERSION      = VERSION
    REVISION     = REVISION
    TORCH_INDEX  = CPU_INDEX
  }
  attest = ["type=sbom", "type=provenance,mode=max"]
}

target "operator" {
  inherits  = ["common"]
  target    = "operator"
  platforms = ["linux/amd64", "linux/arm64"]
  tags      = ["${REGISTRY}/operator:${VERSION}"]
}

target "inference" {
  inherits  = ["common"]
  target    = "inference"
  platforms = ["linux/amd64", "linux/arm64"]
  tags      = ["${REGISTRY}/inference:${VERSION}"]
}

target "trainer" {
  inherits  = ["common"]
  target    = "trainer"
  platforms = ["linux/amd64", "linux/arm64"]
  tags      = ["${REGISTRY}/trainer:${VERSION}"]
}

target "inference-cuda" {
  inherits  = ["inference"]
  platforms = ["linux/amd64"]
  args      = { TORCH_INDEX = CUDA_INDEX, COMPILER = CUDA_COMPILER }
  tags      = ["${REGISTRY}/inference:${VERSION}-cuda"]
}

target "trainer-cuda" {
  inherits  = ["trainer"]
  platforms = ["linux/amd64"]
  args      = { TORCH_INDEX = CUDA_INDEX, COMPILER = CUDA_COMPILER }
  tags      = ["${REGISTRY}/trainer:${VERSION}-cuda"]
}
