printf pw > run/keys/password
chmod 600 run/keys/password
mv example.yaml credresolve.yaml
