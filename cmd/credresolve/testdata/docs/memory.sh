cp example.yaml credresolve.yaml
