# Serves moto on a free port of the loopback interface, prints the port, and ends when its standard input does.
# It corrects where moto departs from AWS and a test would go wrong for it:
#  - after UpdateSecretVersionStage, a read without a stage still gave the version that had AWSCURRENT before;
#  - BatchGetSecretValue took any number of ids, and left out those it did not find instead of listing them in Errors;
#  - calls ran side by side on the same secret, so that a compare-and-swap could be won twice;
#  - DescribeSecret and PutSecretValue let a secret be used that waits for its deletion, CreateSecret called it existing.
#  - pages of ListSecrets began at a number, so that a deletion between two pages hid a secret. They are also shorter than
#    asked for, as those of AWS may be, so that a few secrets make several pages.
import json
import os
import sys
import threading

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.secretsmanager import exceptions, models
from werkzeug.serving import WSGIRequestHandler, make_server

Backend = models.SecretsManagerBackend
one_at_a_time = threading.RLock()
PAGE = 20
DELETED = "You can't perform this operation on the secret because it was marked for deletion."


def correct(name):
    def decorate(f):
        original = getattr(Backend, name)

        def corrected(self, *args, **kwargs):
            with one_at_a_time:
                return f(original, self, *args, **kwargs)

        setattr(Backend, name, corrected)
        return f

    return decorate


@correct("update_secret_version_stage")
def update_secret_version_stage(original, self, secret_id, version_stage, remove_from_version_id, move_to_version_id):
    answer = original(
        self,
        secret_id=secret_id,
        version_stage=version_stage,
        remove_from_version_id=remove_from_version_id,
        move_to_version_id=move_to_version_id,
    )
    if version_stage == "AWSCURRENT" and move_to_version_id:
        self.secrets[secret_id].set_default_version_id(move_to_version_id)
    return answer


@correct("batch_get_secret_value")
def batch_get_secret_value(original, self, secret_id_list=None, filters=None, max_results=None, next_token=None):
    if not secret_id_list:
        return original(self, secret_id_list=secret_id_list, filters=filters, max_results=max_results, next_token=next_token)
    if len(secret_id_list) > 20:
        raise exceptions.ValidationException("Member must have length less than or equal to 20")
    values, errors = [], []
    for secret_id in secret_id_list:
        try:
            values.append(self.get_secret_value(secret_id, "", ""))
        except exceptions.SecretsManagerClientError as e:
            errors.append({"SecretId": secret_id, "ErrorCode": e.error_type, "Message": e.message})
    return values, errors, None


@correct("put_secret_value")
def put_secret_value(original, self, secret_id, *args, **kwargs):
    if secret_id in self.secrets and self.secrets[secret_id].is_deleted():
        raise exceptions.InvalidRequestException(DELETED)
    return original(self, secret_id, *args, **kwargs)


@correct("create_secret")
def create_secret(original, self, name, *args, **kwargs):
    if name in self.secrets and self.secrets[name].is_deleted():
        raise exceptions.InvalidRequestException(
            "You can't create this secret because a secret with this name is already scheduled for deletion."
        )
    return original(self, name, *args, **kwargs)


@correct("list_secrets")
def list_secrets(original, self, filters, max_results=None, next_token=None, include_planned_deletion=False):
    found, _ = original(self, filters, 1_000_000, None, include_planned_deletion)
    found = sorted((s for s in found if s["Name"] > (next_token or "")), key=lambda s: s["Name"])
    page = found[: min(max_results or 100, PAGE)]
    return page, page[-1]["Name"] if len(page) < len(found) else None


@correct("get_secret_value")
def get_secret_value(original, self, *args, **kwargs):
    return original(self, *args, **kwargs)


class Handler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, *args, **kwargs):
        pass


def until_parent_ends():
    sys.stdin.buffer.read()
    os._exit(0)


threading.Thread(target=until_parent_ends, daemon=True).start()
server = make_server("127.0.0.1", 0, DomainDispatcherApplication(create_backend_app), threaded=True, request_handler=Handler)
print(json.dumps({"port": server.server_port}), flush=True)
server.serve_forever()
