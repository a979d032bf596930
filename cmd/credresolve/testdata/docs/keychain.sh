sed '/^  work:/d' example.yaml > credresolve.yaml
echo 'token: {provider: desk, id: session-key, default: none}' > app.yaml
printf the-password-of-a-keyring > run/keys/keyring
mkdir -p run/credentials/app
cp key.password run/credentials/app/keyring-password
