package oauth2

// Challenge is the S256 of RFC 7636 for its tests.
var Challenge = challenge
