package server

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/credref"
	"github.com/credresolve/credresolve/resolver"
)

// What metrics call the paths of the AWS agent.
const (
	awsQueryPath = "/secretsmanager/get"
	awsPathPath  = "/v1/{secretId}"
	awsPingPath  = "/ping"
)

// awsAgent answers as the AWS Workload Credentials Provider does, which was the Secrets Manager Agent before.
// https://docs.aws.amazon.com/secretsmanager/latest/userguide/secrets-manager-agent.html
type awsAgent struct {
	s                 *Server
	ping, query, path []route
}

func newAWSAgent(s *Server) http.Handler {
	return &awsAgent{
		s: s, query: reads((*Server).awsQuery), path: reads((*Server).awsPath),
		ping: []route{{method: http.MethodGet, open: true, health: true, handle: func(_ *Server, req *request) { req.text(http.StatusOK, "healthy") }}},
	}
}

func (a *awsAgent) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	found, name := []route(nil), otherPath
	switch path := r.URL.Path; {
	case path == awsPingPath:
		found, name = a.ping, awsPingPath
	case path == awsQueryPath:
		found, name = a.query, awsQueryPath
	case strings.HasPrefix(path, "/v1/"):
		found, name = a.path, awsPathPath
	}
	a.s.answer(w, r, &awsProtocol, found, name)
}

var awsProtocol = protocol{token: awsToken, fail: awsFail}

// awsToken finds the token in the headers in which the agent looks for it unless it is told otherwise.
func awsToken(r *http.Request) (string, error) {
	return cmp.Or(header(r, "X-Aws-Parameters-Secrets-Token"), header(r, "X-Vault-Token")), nil
}

// awsErrors are what AWS calls errors. The agent passes them on with the status that AWS gives them, 400 for all that the
// caller did; what it says itself has another status.
var awsErrors = map[backend.Code]struct {
	status int
	name   string
}{
	backend.CodeNotFound:      {http.StatusBadRequest, "ResourceNotFoundException"},
	backend.CodeDenied:        {http.StatusBadRequest, "AccessDeniedException"},
	backend.CodeUsage:         {http.StatusBadRequest, "InvalidParameterException"},
	backend.CodeInvalidID:     {http.StatusBadRequest, "InvalidParameterException"},
	backend.CodeInvalidConfig: {http.StatusBadRequest, "InvalidParameterException"},
	backend.CodeFieldRequired: {http.StatusBadRequest, "InvalidRequestException"},
	backend.CodeUnsupported:   {http.StatusBadRequest, "InvalidRequestException"},
	backend.CodeExpired:       {http.StatusBadRequest, "InvalidRequestException"},
	backend.CodeConflict:      {http.StatusBadRequest, "InvalidRequestException"},
	backend.CodeAuthRequired:  {http.StatusBadRequest, "UnrecognizedClientException"},
	backend.CodeLocked:        {http.StatusBadRequest, "UnrecognizedClientException"},
	backend.CodeThrottled:     {http.StatusTooManyRequests, "ThrottlingException"},
	backend.CodeUnavailable:   {http.StatusBadGateway, "ConnectionError"},
	backend.CodeTimeout:       {http.StatusGatewayTimeout, "TimeoutError"},
	backend.CodeCanceled:      {http.StatusGatewayTimeout, "TimeoutError"},
}

// awsFail answers as the agent does: in plain text where it speaks for itself, in AWS's JSON where AWS would.
func awsFail(req *request, err error) {
	code := backend.CodeOf(err)
	var own *badRequest
	switch {
	case req.r.Header["X-Forwarded-For"] != nil && err == error(errBrowser):
		req.text(http.StatusBadRequest, "Forwarded")
		return
	case req.caller == nil && code == backend.CodeAuthRequired:
		req.text(http.StatusForbidden, "Bad Token")
		return
	case req.caller == nil && code == backend.CodeDenied:
		req.text(http.StatusForbidden, err.Error())
		return
	case errors.As(err, &own) && own.status == http.StatusNotFound:
		req.text(own.status, "Not found")
		return
	case errors.As(err, &own) && own.status == http.StatusMethodNotAllowed:
		req.text(own.status, "Not allowed")
		return
	case errors.As(err, &own):
		req.text(own.status, err.Error())
		return
	case err == error(errBusy), err == error(errFull):
		req.text(http.StatusTooManyRequests, "Connection limit exceeded")
		return
	}
	e, known := awsErrors[code]
	if !known {
		req.write(http.StatusInternalServerError, []byte(`{"__type":"InternalFailure"}`))
		return
	}
	out := append(append([]byte(`{"__type":"`), e.name...), `","message":`...)
	req.write(e.status, append(backend.AppendJSONString(out, err.Error()), '}'))
}

// awsAsk is what a request asks for.
type awsAsk struct {
	id, versionID, stage string
	refresh              bool
}

func (s *Server) awsQuery(req *request) {
	q, err := parseAWSQuery(req.r.URL.RawQuery, "")
	s.awsGet(req, q, err)
}

func (s *Server) awsPath(req *request) {
	id := strings.TrimPrefix(req.r.URL.Path, "/v1/")
	if id == "" {
		req.fail(bad(http.StatusBadRequest, "missing secret ID", ""))
		return
	}
	q, err := parseAWSQuery(req.r.URL.RawQuery, id)
	s.awsGet(req, q, err)
}

// parseAWSQuery reads a query; id is what the path names, empty where the query is to name it. What is wrong with it is told
// without what it holds.
func parseAWSQuery(query, id string) (q awsAsk, err error) {
	values, err := url.ParseQuery(query)
	if err != nil {
		return q, bad(http.StatusBadRequest, "the query is not percent-encoded", "")
	}
	q.id = id
	for name, given := range values {
		if len(given) > 1 {
			return q, bad(http.StatusBadRequest, "a parameter stands twice", "")
		}
		value := given[0]
		switch {
		case name == "secretId" && id == "":
			q.id = value
		case (name == "versionId" || name == "versionStage") && value == "":
			return q, bad(http.StatusBadRequest, name+" is empty", "leave it out for the current version")
		case name == "versionId":
			q.versionID = value
		case name == "versionStage":
			q.stage = value
		case name == "refreshNow":
			switch strings.ToLower(value) {
			case "true", "1":
				q.refresh = true
			case "false", "0":
			default:
				return q, bad(http.StatusBadRequest, "invalid refreshNow value", "")
			}
		case name == "roleArn":
			return q, bad(http.StatusBadRequest, "roleArn is not taken here", "configure a provider that assumes the role, and name it as cred://provider/id")
		default:
			return q, bad(http.StatusBadRequest, "unknown parameter", "known: secretId, versionId, versionStage, refreshNow")
		}
	}
	if q.id == "" {
		return q, bad(http.StatusBadRequest, "missing parameter secretId", "")
	}
	return q, nil
}

// ref gives the ref of what q asks for.
func (q awsAsk) ref(st *state) (credref.Ref, error) {
	ref := credref.Ref{Provider: st.serve.AWSAgent.Provider, ID: q.id}
	own, isOwn := fromARN(q.id)
	switch {
	case isOwn:
		ref = own
	case credref.IsShortForm(q.id):
		var err error
		if ref, err = credref.Parse(q.id); err != nil {
			return ref, bad(http.StatusBadRequest, err.Error(), "")
		}
	}
	if ref.Version != "" && (q.versionID != "" || q.stage != "") {
		return ref, bad(http.StatusBadRequest, "the version stands in secretId and in the query", "")
	}
	ofAWS := false
	if p := st.kinds[ref.Provider]; p != nil {
		ofAWS = p.Kind == "awssm"
	}
	switch {
	case q.versionID != "" && ofAWS:
		ref.Version = "id:" + q.versionID
	case q.versionID != "":
		ref.Version = q.versionID
	case q.stage != "" && q.stage != awsCurrent:
		ref.Version = "stage:" + q.stage
	}
	return ref, nil
}

const awsCurrent = "AWSCURRENT"

func (s *Server) awsGet(req *request, q awsAsk, err error) {
	if err != nil {
		req.fail(err)
		return
	}
	ref, err := q.ref(req.state)
	if err != nil {
		req.fail(err)
		return
	}
	v, err := s.one(req, ref, resolver.Demand{NoCache: q.refresh})
	if err != nil {
		req.fail(err)
		return
	}
	metadata := v.Metadata()
	stages := awsStages(metadata, ref)
	if q.versionID != "" && q.stage != "" && !slices.Contains(stages, q.stage) {
		req.fail(backend.Errorf(backend.CodeNotFound, "the version has no such staging label"))
		return
	}
	if err := req.awsAnswer(v, ref, q.id, metadata, stages); err != nil {
		req.fail(err)
	}
}

// awsAnswer writes what GetSecretValue answers, as the agent writes it.
func (req *request) awsAnswer(v *resolver.Value, ref credref.Ref, id string, metadata map[string]string, stages []string) error {
	value, binary, err := awsValue(v)
	if err != nil {
		return err
	}
	defer clear(value)
	need := 2048 + 12*len(ref.ID) + size(v)
	if binary {
		need += base64.StdEncoding.EncodedLen(len(value))
	} else {
		need += textLen(value)
	}
	arn, name, version := metadata["arn"], metadata["name"], v.Version()
	if arn == "" || ref.Field != "" {
		arn = toARN(ref)
	}
	if len(version) < 32 { // AWS's are longer, and are of one version: this one is of one content
		version = asUUID(v.Revision())
	}
	out := slices.Grow(req.out[:0], need)
	out = backend.AppendJSONString(append(out, `{"ARN":`...), arn)
	out = backend.AppendJSONString(append(out, `,"Name":`...), cmp.Or(name, id))
	out = backend.AppendJSONString(append(out, `,"VersionId":`...), version)
	if binary {
		out = base64.StdEncoding.AppendEncode(append(out, `,"SecretBinary":"`...), value)
		out = append(out, '"')
	} else {
		out = backend.AppendJSONString(append(out, `,"SecretString":`...), value)
	}
	for i, stage := range stages {
		lead := `,`
		if i == 0 {
			lead = `,"VersionStages":[`
		}
		out = backend.AppendJSONString(append(out, lead...), stage)
	}
	if len(stages) > 0 {
		out = append(out, ']')
	}
	out = append(append(out, `,"CreatedDate":"`...), awsSeconds(created(v, metadata))...)
	req.out = append(out, `"}`...)
	req.write(http.StatusOK, req.out)
	return nil
}

// awsValue gives what a secret is in one piece, which the caller zeroes; binary: it is no text. A secret that has nothing but
// fields is the text of their JSON object.
func awsValue(v *resolver.Value) (value []byte, binary bool, err error) {
	if fields := fieldsOf(v); fields != nil {
		if err := allText(fields); err != nil {
			return nil, false, err
		}
		value, err = backend.FieldsToJSON(fields)
		return value, false, err
	}
	value = v.Secret().Reveal()
	return value, !utf8.Valid(value), nil
}

// awsStages gives the staging labels: those that the store told, else that of the current version where none was asked for.
func awsStages(metadata map[string]string, ref credref.Ref) []string {
	if told := metadata["stages"]; told != "" {
		return strings.Split(told, ",")
	}
	if ref.Version == "" {
		return []string{awsCurrent}
	}
	return nil
}

// created is when the version was made, where the store tells that, else when it was fetched.
func created(v *resolver.Value, metadata map[string]string) time.Time {
	for _, name := range [...]string{"created", "created_time"} {
		if at, err := time.Parse(time.RFC3339, metadata[name]); err == nil {
			return at
		}
	}
	return v.Fetched()
}

// awsSeconds writes a time as the agent does, in seconds of the epoch, to the millisecond as AWS has it.
func awsSeconds(t time.Time) string {
	return strconv.FormatFloat(float64(t.UnixMilli())/1000, 'f', -1, 64)
}

// ownARN begins the ARNs that are made up for secrets which have none. A client may come back with one.
const ownARN = "arn:aws:secretsmanager:credresolve:000000000000:secret:"

// toARN makes up an ARN, the same each time, with six characters at its end as all have.
func toARN(ref credref.Ref) string {
	ref.Version = ""
	name := strings.TrimPrefix(ref.String(), credref.Scheme+"://")
	return ownARN + name + "-" + arnSuffix(name)
}

func arnSuffix(name string) string {
	sum := sha256.Sum256([]byte(name))
	return hex.EncodeToString(sum[:3])
}

// fromARN is the reverse of toARN.
func fromARN(id string) (ref credref.Ref, ok bool) {
	rest, ok := strings.CutPrefix(id, ownARN)
	i := strings.LastIndexByte(rest, '-')
	if !ok || i < 0 || rest[i+1:] != arnSuffix(rest[:i]) {
		return ref, false
	}
	ref, err := credref.Parse(credref.Scheme + "://" + rest[:i])
	return ref, err == nil
}

// asUUID writes 32 hexadecimal digits as a UUID, the form of AWS's version ids.
func asUUID(hex string) string {
	if len(hex) != 32 {
		return hex
	}
	return hex[:8] + "-" + hex[8:12] + "-" + hex[12:16] + "-" + hex[16:20] + "-" + hex[20:]
}
