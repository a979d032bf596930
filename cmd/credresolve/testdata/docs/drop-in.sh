# The configuration that the page begins with, and a credential of AWS.
cp example.yaml credresolve.yaml
printf '{"api_key": "from-a-file", "aws": {"access_key_id": "AKIAEXAMPLE", "secret_access_key": "from-a-file"}}' > secrets.json
