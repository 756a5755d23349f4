"""``producer map``: a function over the items of a file.

reader -> feed -> flow -> sink        reader: bytes of the file to items; feed: a few of them, ahead of the workers
                  |  ^                flow: items to chunks to workers, and answers back into order
                  crew                crew: the workers, in any place
                                      sink: results, errors, and the journal by which the map can be resumed
"""
