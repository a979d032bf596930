cat > app.env << 'ENV'
DB_HOST=db.example
DB_USER=cred://app/kv/app/db#user
DB_PASSWORD=cred://app/kv/app/db#password
ENV
cp app.env ci.env
printf '#!/bin/sh\ntest "$DB_PASSWORD" = from-vault -a "$*" = "--port 8080"\n' > server
printf '#!/bin/sh\ntest "$DB_PASSWORD" = from-vault\n' > migrate
chmod 700 server migrate
printf 'test:\n\t@echo the password is $$DB_PASSWORD\n' > Makefile
