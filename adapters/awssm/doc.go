// Package awssm reads and writes the secrets of AWS Secrets Manager.
//
// # IDs
//
// The name of a secret ("app/db"), its ARN, or its ARN without the hyphen and six characters that AWS appends. The
// version is "id:" and a version id, "stage:" and a staging label, or either bare: a UUID is an id, anything else a
// label. Without version it is AWSCURRENT. The credential's Secret is the whole SecretString or SecretBinary; the members
// of a SecretString that is a JSON object are its fields.
//
// # Configuration
//
// See Config. What it leaves open the SDK's default chain decides: environment variables, ~/.aws/config and
// ~/.aws/credentials, web identity, container and instance role. The SDK reads the variables of the process itself.
//
// # Errors
//
// See the tables in errors.go. A secret that waits for its deletion is not found, with that reason. No text of AWS or of
// the SDK is shown.
//
// # Capabilities
//
// Batch (BatchGetSecretValue, 20 current versions a call; single calls for pinned versions, and where policy denies the
// batch call), probe (DescribeSecret of a secret that need not exist: it reaches and authenticates, and no policy has to
// allow it), check (DescribeSecret), write (strength store), list.
//
// A Put with a version stores the value under a staging label of its own, and then moves AWSCURRENT from that version;
// AWS refuses the move when AWSCURRENT is elsewhere. Delete has no such call, so it takes no condition.
package awssm
