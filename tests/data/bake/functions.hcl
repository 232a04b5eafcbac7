target "default" {
  args = {
    a = trimsuffix("abc.x", ".x"), b = join("-", split(".", "1.2.3")), c = jsonencode({ k = [1, true, null, "s"] })
    d = "${1 + 2 * 3 - 4 / 2}", e = 7 % 3, f = "%{ for x in ["p", "q"] }<${x}>%{ endfor }", g = "%{ if true }yes%{ else }no%{ endif }"
    h = element(["a", "b", "c"], 4), i = length([1, 2]), j = lookup({ z = "zed" }, "z", "none"), k = regex_replace("ab12", "[0-9]+", "<$0>")
    l = substr("hello", 1, 3), m = md5("x"), n = sha256("x"), o = base64encode("hi"), p = title("hello world"), q = indent(2, "a\nb")
    r = join(",", sort(distinct(concat(["b", "a"], ["b"])))), s = format("%q %v %5.2f %d", "x", [1], 3.14159, 42), t = replace("1.2", ".", "_")
    u = coalesce(null, "first"), v = try({ q = "1" }.z, "fallback"), x = "$${literal} %%{lit}", y = "tab\tq\"uote\u00e9"
    z = merge({ a = "1" }, { b = "2" }).b, aa = [for k, v in { x = "1", y = "2" } : "${k}${v}"][1], ab = { for s in ["q"] : s => upper(s) }["q"]
    ac = chomp("line\n"), ad = flatten([["a"], ["b", ["c"]]])[2], ae = cidrsubnet("10.0.0.0/8", 8, 2)
    ah = reverse("abc"), ai = strlen("héé"), aj = max(1, 5, 3), ak = pow(2, 10), al = floor(2.7), an = parseint("ff", 16), ao = range(3)[2]
    ap = setproduct(["a"], ["b", "c"])[1][1], aq = zipmap(["k"], ["v"]).k, at = 10 / 4, au = urlencode("a b&c"), av = timeadd("2024-01-01T00:00:00Z", "1h")
    aw = formatdate("YYYY-MM-DD hh:mm", "2024-02-03T04:05:06Z"), ax = regexall("[a-z]", "a1b")[1], ay = signum(-3), az = "a" == "a" && !(1 > 2) ? "T" : "F"
    ba = ([{ n = "x" }, { n = "y" }][*].n)[1], bb = hasindex(["a"], 3) ? "y" : "n", bc = <<-EOT
      indented
        more ${abs_default}
      EOT
  }
}
variable "abs_default" { default = absolute(-4) }
