"""Test vectors that training and the server share: rules that each implements on its own."""
