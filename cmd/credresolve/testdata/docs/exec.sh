# The program of the page's example must get its token.
sed -i 's/^cat/test "$CORP_TOKEN" = the-token -a "$*" = --json || exit 1\ncat/' corp/secrets
printf the-token | credresolve put cred://desk/corp-token
desk=$(grep -E '^ +(desk|key):' credresolve.yaml)
{ sed '/^  desk:/d' example.yaml; echo "$desk"; } > next.yaml
mv next.yaml credresolve.yaml
