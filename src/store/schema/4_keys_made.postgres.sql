-- Keys that were ever made, as far as is known; a first start makes one only when there are none.
INSERT INTO instance SELECT 'keys_made', count(*) FROM keys;
