module example.com/jsonstore

go 1.26.0

require github.com/credresolve/credresolve v0.0.0

replace github.com/credresolve/credresolve => ../../..
