# A program that answers only with the token and the arguments of the page's example.
cat > corp/secrets << 'SH'
#!/bin/sh
test "$CORP_TOKEN" = the-token -a "$*" = --json || exit 1
cat > /dev/null
echo '{"protocolVersion": 1, "values": {"db": {"user": "app", "password": "from-a-program"}}}'
SH
printf the-token | credresolve put cred://desk/corp-token
desk=$(grep -E '^ +(desk|key):' credresolve.yaml)
{ sed '/^  desk:/d' example.yaml; echo "$desk"; } > next.yaml
mv next.yaml credresolve.yaml
