echo 'password: cred://app/kv/app/db#password' > app.yaml
echo 'DB_PASSWORD=cred://app/kv/app/db#password' > app.env
printf '#!/bin/sh\ntest "$DB_PASSWORD" = from-vault\n' > server
chmod 700 server
