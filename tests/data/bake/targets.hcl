variable "TAG" { default = "latest" }
variable "N" { default = 3 }
variable "DEBUG" { default = false }
variable "LIST" {
  default = ["x", "y"]
}
variable "REGISTRY" {
  default = "reg.example"
}
function "tags" {
  params = [name]
  result = ["${REGISTRY}/${name}:${TAG}", notequal("", TAG) ? "${name}:${N + 1}" : ""]
}
group "default" { targets = ["app", "db"] }
target "_common" {
  args = { A = "1", B = upper("b"), D = DEBUG ? "on" : "off" }
  labels = { "org.x" = format("%s-%03d", TAG, N) }
  platforms = ["linux/amd64"]
}
target "app" {
  inherits = ["_common"]
  context = "./app"
  dockerfile = "Dockerfile.app"
  contexts = { base = "target:base", src = "./src" }
  tags = tags("app")
  cache-from = ["type=registry,ref=reg/app:cache", "plain/ref"]
  cache-to = ["type=inline"]
  output = ["type=docker"]
  secret = ["id=mysecret,src=s"]
  args = { C = join(",", [for v in LIST : "${v}!"]), A = "2" }
  attest = ["type=provenance,mode=max"]
  no-cache-filter = ["build"]
  shm-size = "64m"
  ulimits = ["nofile=1024:1024"]
}
target "base" { 
  dockerfile-inline = <<EOT
FROM busybox
RUN echo ${TAG} \
  && true
EOT
}
target "db" {
  name = "db-${v}-${replace(item.tag, ".", "-")}"
  matrix = { v = ["a", "b"], item = [{tag = "1.0"}, {tag = "2.0"}] }
  target = v
  args = { V = item.tag }
  pull = true
}
