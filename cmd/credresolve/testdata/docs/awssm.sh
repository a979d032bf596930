echo '  aws:  {kind: awssm, region: eu-west-1}' >> credresolve.yaml
printf '{"user": "bob", "password": "from-aws"}' | credresolve put --json cred://aws/app/db
