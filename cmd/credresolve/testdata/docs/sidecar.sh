# Two pages have this name: that of the kind, whose example is the configuration, and that of the sidecar, which has none.
if [ -e example.yaml ]; then
  cp example.yaml credresolve.yaml
fi
