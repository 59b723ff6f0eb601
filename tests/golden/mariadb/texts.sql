CREATE TABLE texts (
    id INT PRIMARY KEY, fixed CHAR(5), word VARCHAR(100), body TEXT,
    latin VARCHAR(50) CHARACTER SET latin1, wide VARCHAR(50) CHARACTER SET utf16,
    cyrillic VARCHAR(50) CHARACTER SET cp1251, any_case VARCHAR(50) COLLATE utf8mb4_unicode_ci,
    choice ENUM('a', 'b,c', '', 'é"') CHARACTER SET latin1, several SET('x', 'y "z"'),
    document JSON
) CHARACTER SET utf8mb4;
INSERT INTO texts VALUES
  (1, 'ab', 'say "hi",\nthen é', 'a\0\b\t\n\r\Z\\\'"/', 'éß', '😀漢', 'Жя', 'Ä', 'b,c', 'x,y "z"',
   '{"a":\n 1,\r\n "é":"\\n\\u0000"}'),
  (2, '', '', '', '', '', '', '', '', '', '""'),
  (3, ' a ', '  ', '\\.', '=1+1', '@x', '-', '+', 'a', 'x', 'null'),
  (4, '-1', '\t=', '\r', '\n', '"', ',', ';', 'é"', 'y "z"', '-1'),
  (5, '1', '＝x', CONCAT(CHAR(1, 2, 11, 14, 27, 31, 127 USING utf8mb4), '\\u000B'), 'x', 'x', 'x',
   'NULL', 'a', 'x', '[1, 2.50, 1e400, {"b": 1, "a": 2, "a": 3}]'),
  (6, 'x', '  x  ', 'x', 'x', 'x', 'x', 'x', 'a', 'x', ' true '),
  (7, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
