printf %s "$SECRET_ID" | credresolve put cred://desk/approle-secret
desk=$(grep -E '^ +(desk|key):' credresolve.yaml)
{ sed -e '/^  desk:/d' -e '/^ *tls:/d' example.yaml; echo "$desk"; } > next.yaml
mv next.yaml credresolve.yaml
